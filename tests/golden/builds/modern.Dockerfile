# syntax=docker/dockerfile:1
FROM busybox AS never
RUN exit 3
FROM busybox AS source
ARG INHERITED=by-child-stages
RUN mkdir -p /src/deep/er && echo x >/src/deep/x.txt && echo y >/src/deep/er/y.txt && echo z >/src/z.md
FROM source AS child
RUN echo "$INHERITED" >/inherited
FROM busybox
COPY --from=child /inherited /
COPY setuid /
COPY --link --chown=1000:1000 text/one.txt /linked/
COPY --parents --from=source /src/./deep/**/*.txt /parents/
COPY --exclude=*.txt text /excluded
COPY --chmod=u=rwX,go=rX text/one.txt /symbolic
COPY --chmod=0600 text /modes/
ADD --unpack=false archive.tar.gz /packed/
ADD --chown=1000:1000 archive.tar.gz /unpacked/
RUN --mount=type=bind,target=/context cat /context/text/one.txt >/bound
RUN --mount=type=bind,from=source,source=/src/z.md,target=/z cat /z >/from-source
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x
RUN --mount=type=cache,target=/cache,id=golden echo hit >/cache/x && ls /cache >/cached
RUN --network=none ls /sys/class/net | grep -vc lo >/links || true
