# Stages by name and number.
FROM busybox AS build
RUN mkdir /out && echo built >/out/file && ln -s file /out/link && echo secret >/notes
FROM busybox AS never
RUN touch /never
FROM busybox
COPY text/one.txt /third
FROM busybox AS last
COPY --from=build /out /app
COPY --from=0 /out/link /linked
COPY --from=2 /third /
COPY --from=build --chown=1000 /out/file /app/owned
COPY --from=busybox /etc/passwd /etc/group /other/
FROM last AS beyond
RUN exit 4
