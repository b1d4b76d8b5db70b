# Sightline on JetPack 7 (L4T r38 and r39): Python 3.12, CUDA 13, TensorRT 10.13.
#
#   docker build -f deploy/jetpack7.Dockerfile -t sightline:jetpack7 .
#   docker compose -f deploy/compose.yaml up -d
#
# JetPack 7 is a server-class Arm system (SBSA), so NVIDIA's common TensorRT image takes the place of
# l4t-jetpack. Its TensorRT does without libnvdla_compiler.so, which JetPack 7.2 no longer ships: an
# image made for JetPack 6 cannot even import TensorRT there.
FROM nvcr.io/nvidia/tensorrt:25.08-py3

ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

# GStreamer and PyGObject belong to the system's Python: the decoder's child process runs under it.
RUN apt-get update && apt-get install --yes --no-install-recommends \
        gir1.2-gst-plugins-base-1.0 \
        gir1.2-gstreamer-1.0 \
        gstreamer1.0-plugins-bad \
        gstreamer1.0-plugins-base \
        gstreamer1.0-plugins-good \
        python3-gi \
        python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /usr/src/sightline
COPY pyproject.toml requirements.lock README.md LICENSE sightline.py ./
COPY edge edge
COPY train train
COPY calibration calibration
COPY export export
# With the system's packages, because TensorRT's bindings come with the image.
RUN python3 -m venv --system-site-packages /opt/sightline \
    && /opt/sightline/bin/pip install --constraint requirements.lock '.[onnx,web,mqtt,jetpack7]'

# Nobody's groups: those of the cameras and of the GPU have other numbers on each host (compose.yaml).
RUN useradd --system --create-home --home-dir /var/lib/sightline --shell /usr/sbin/nologin sightline \
    && mkdir -p /var/cache/sightline /etc/sightline \
    && chown sightline:sightline /var/cache/sightline
ENV XDG_CACHE_HOME=/var/cache/sightline XDG_STATE_HOME=/var/lib/sightline
WORKDIR /var/lib/sightline
USER sightline
VOLUME ["/var/lib/sightline", "/var/cache/sightline"]
EXPOSE 8080

# Needs the table [web] in the configuration. Docker itself only marks the container. Not by urllib, which would ask the
# proxy that Docker may have been told of.
HEALTHCHECK --interval=15s --timeout=3s --start-period=90s --retries=3 \
    CMD ["/opt/sightline/bin/python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/sightline/bin/sightline"]
CMD ["run", "/etc/sightline/config.toml"]
