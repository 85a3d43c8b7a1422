# The gateway and its load tester, on nothing but the libraries that they are linked with.
#
#   docker build --tag roomcast/gateway:0.1.0 .
#
# Neither a `# syntax=` line nor `RUN --mount` stands here, so that every builder takes it, also without a registry.

# What the label says, whatever the image is tagged. The build fails where the programs say otherwise.
ARG VERSION=0.1.0

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Panics name their line all the same; backtraces name functions.
ENV CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=debuginfo

# The dependencies, in a layer of their own: the manifests decide about it, and the sources are empty ones.
COPY Cargo.toml Cargo.lock ./
COPY protocol/Cargo.toml protocol/Cargo.toml
COPY gateway/Cargo.toml gateway/Cargo.toml
COPY loadtest/Cargo.toml loadtest/Cargo.toml
COPY xtask/Cargo.toml xtask/Cargo.toml
RUN for crate in protocol gateway loadtest xtask; do mkdir $crate/src && touch $crate/src/lib.rs; done \
 && for crate in gateway loadtest xtask; do echo 'fn main() {}' >$crate/src/main.rs; done \
 && mkdir gateway/benches loadtest/benches && touch gateway/benches/gateway.rs loadtest/benches/cost.rs \
 && mkdir -p gateway/tests/it loadtest/tests/it && touch gateway/tests/it/main.rs loadtest/tests/it/main.rs \
 && cargo build --release --locked --package roomcast-gateway --package roomcast-loadtest --lib --bins \
 && cargo clean --release --package roomcast-protocol --package roomcast-gateway --package roomcast-loadtest \
 && rm -r protocol/src gateway/src loadtest/src

COPY protocol/src protocol/src
COPY gateway/src gateway/src
COPY clients/js/src clients/js/src
COPY loadtest/src loadtest/src
# What GET /version says, beside the version.
ARG GIT_COMMIT
RUN if [ -z "$GIT_COMMIT" ]; then unset GIT_COMMIT; fi \
 && cargo build --release --locked --offline --package roomcast-gateway --package roomcast-loadtest --bins

# The root of the image: the binaries, their libraries at the paths where the loader looks, and a name for the user.
ARG VERSION
RUN install -D -t /image/usr/local/bin target/release/gateway target/release/loadtest \
 && for library in $(ldd target/release/gateway target/release/loadtest | grep -o '/[^ ]*\.so[^ ]*' | sort -u); do \
      install -D "$(readlink -f "$library")" "/image$library"; done \
 && mkdir -p /image/etc/roomcast \
 && echo 'roomcast:x:10001:10001:Roomcast:/:/sbin/nologin' >/image/etc/passwd \
 && echo 'roomcast:x:10001:' >/image/etc/group \
 && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
 && for program in gateway loadtest; do \
      version=$("/image/usr/local/bin/$program" --version) && echo "$version" && [ "$version" = "$program $VERSION" ] \
        || { echo "VERSION at the head of the Dockerfile is $VERSION, and the sources are of another" >&2; exit 1; }; done
COPY LICENSE /image/usr/share/doc/roomcast/LICENSE

FROM scratch
COPY --from=build /image /
ARG VERSION
ARG GIT_COMMIT
LABEL org.opencontainers.image.title="Roomcast" \
      org.opencontainers.image.description="A WebSocket gateway node: rooms that span nodes through Redis. With its load tester." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
USER 10001:10001
# Clients; and for the operators /metrics, /healthz, /readyz, /version.
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["gateway", "probe"]
ENTRYPOINT ["gateway"]
