# Dockwarden's own image. It passes Dockwarden's own rules: pinned base, non-root numeric user, nothing written outside the
# declared volume and /tmp, a healthcheck, no compilers or package lists left behind.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY requirements-runtime.lock ./
# Dependencies before sources: they change rarely, so this layer is cached.
RUN python -m venv /opt/dockwarden \
 && /opt/dockwarden/bin/pip install --no-cache-dir --require-hashes -r requirements-runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY scanner scanner
COPY web web
COPY migrations migrations
RUN /opt/dockwarden/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="dockwarden" \
      org.opencontainers.image.description="Container image security scanning and hardening service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.14-slim-bookworm"
# setuid programs are of no use to a service that never changes its user.
RUN groupadd --gid 10001 dockwarden \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/dockwarden --shell /usr/sbin/nologin dockwarden \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/dockwarden \
 && find / -xdev -perm /6000 -type f -exec chmod a-s {} +
COPY --from=build /opt/dockwarden /opt/dockwarden
ENV PATH=/opt/dockwarden/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DOCKWARDEN_HOME=/var/lib/dockwarden \
    DOCKWARDEN_HOST=0.0.0.0
WORKDIR /var/lib/dockwarden
VOLUME /var/lib/dockwarden
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import sys, urllib.request; sys.exit(urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4).status != 200)"]
ENTRYPOINT ["dockwarden"]
CMD ["serve"]
