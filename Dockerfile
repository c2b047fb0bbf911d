# zeroone in a small image, run by nobody.
#
# The same image serves as an agent's image, since it holds the embedded gateway: set it as the agents' image, and its
# label says which profile they have.
#
# Both bases can be replaced, for an air-gapped registry or another distribution: the first one needs cargo and a C
# compiler, the second one glibc, libgcc and the usual CA certificates.
ARG BUILD=rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG BASE=gcr.io/distroless/cc-debian12:latest@sha256:e5d81ddde149641e2a9ba55be4545bc125c67de07508b03ba4c22e6eb0ded5aa

FROM ${BUILD} AS build
# The time of the commit, for the same image from the same sources: docs/operating.md says how to compare two.
ARG SOURCE_DATE_EPOCH=0
# For a trial in less time: --build-arg CARGO_PROFILE_DIST_OPT_LEVEL=0 --build-arg CARGO_PROFILE_DIST_LTO=off
ARG CARGO_PROFILE_DIST_OPT_LEVEL
ARG CARGO_PROFILE_DIST_LTO
WORKDIR /source
COPY . .
# As scripts/release does it: no path of this machine is in the program.
RUN registry="${CARGO_HOME:-$HOME/.cargo}" \
 && RUSTFLAGS="--remap-path-prefix=$registry=/cargo" CFLAGS="-ffile-prefix-map=$registry=/cargo" \
    cargo build --profile dist --locked --features kubernetes --bin zeroone \
 && mkdir -p /out/data /out/zeroclaw-data \
 && cp target/dist/zeroone /out/zeroone \
 && find /out -exec touch --date="@$SOURCE_DATE_EPOCH" {} +

FROM ${BASE}
COPY --from=build /out/zeroone /usr/local/bin/zeroone
# A volume that is mounted here for the first time takes over the owner.
COPY --from=build --chown=65534:65534 /out/data /data
COPY --from=build --chown=65534:65534 /out/zeroclaw-data /zeroclaw-data
LABEL zeroone.profile=embedded
USER 65534:65534
ENV ZEROONE_DATA=/data
EXPOSE 3001
ENTRYPOINT ["/usr/local/bin/zeroone"]
CMD ["serve"]
