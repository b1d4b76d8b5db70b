# Sightline on JetPack 6.1 and 6.2 (L4T r36.4): Python 3.10, CUDA 12.6, TensorRT 10.3.
#
#   docker build -f deploy/jetpack6.Dockerfile -t sightline:jetpack6 .
#   docker compose -f deploy/compose.yaml up -d
#
# The host gives the driver's libraries (libnvdla_compiler.so and the GStreamer plugins of the cameras
# among them) through `--runtime nvidia`; what the host lacks stands here as an empty file.
# `sightline doctor` inside the container tells.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

# GStreamer and PyGObject belong to the system's Python: the decoder's child process runs under it.
RUN apt-get update && apt-get install --yes --no-install-recommends \
        gir1.2-gst-plugins-base-1.0 \
        gir1.2-gstreamer-1.0 \
        gstreamer1.0-plugins-bad \
        gstreamer1.0-plugins-base \
        gstreamer1.0-plugins-good \
        python3-gi \
        python3-libnvinfer \
        python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /usr/src/sightline
COPY pyproject.toml requirements.lock README.md LICENSE sightline.py ./
COPY edge edge
COPY train train
COPY calibration calibration
COPY export export
# With the system's packages, because TensorRT's bindings come from apt.
RUN python3 -m venv --system-site-packages /opt/sightline \
    && /opt/sightline/bin/pip install --constraint requirements.lock '.[onnx,web,mqtt,jetpack6]'

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
