"""Live cameras, decoded in a child process, so that a wedged driver or a crashing decoder takes nothing along.

    camera ──▶ child process (PyAV or GStreamer) ──ring in a memfd──▶ `CameraSource.read` ──▶ RGB

`edge.camera.layout`, `edge.camera.link` and `edge.camera.child` import the standard library alone at their
top, because the GStreamer child runs under the system's Python, which has none of our packages.
"""
