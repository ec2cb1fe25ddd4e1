# The server in a container; docs/OPERATIONS.md, "Install", has the commands.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
# What `peerpost --version` says: there is no checkout in the build.
ARG PEERPOST_COMMIT=""
RUN PEERPOST_COMMIT="$PEERPOST_COMMIT" cargo build --release --locked \
  && install -D target/release/peerpost /out/peerpost

FROM debian:bookworm-slim
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/peerpost \
    --shell /usr/sbin/nologin peerpost \
  && install -d -o peerpost -g peerpost -m 0700 /var/lib/peerpost /run/peerpost
COPY --from=build /out/peerpost /usr/bin/peerpost
USER 10001
# Beyond its own loopback the server wants TLS (PEERPOST_TLS_CERT, PEERPOST_TLS_KEY), or to be told
# --plaintext-beyond-loopback. The Unix socket is for the health check, which so needs no certificate.
ENV PEERPOST_DATA_DIR=/var/lib/peerpost \
  PEERPOST_LISTEN=0.0.0.0:50051,unix:/run/peerpost/socket \
  PEERPOST_SERVER=unix:/run/peerpost/socket
VOLUME /var/lib/peerpost
EXPOSE 50051
# It drains for at most 8 seconds: let `docker stop` wait for longer (-t 15).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["peerpost", "health"]
ENTRYPOINT ["peerpost"]
CMD ["serve"]
