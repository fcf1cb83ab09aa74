# Setting ENTRYPOINT takes an inherited CMD away, one that this file set stays.
FROM busybox AS base
CMD ["inherited"]
ENTRYPOINT ["/bin/echo"]
HEALTHCHECK CMD ["true"]
EXPOSE 1
USER app

FROM base AS child
ENTRYPOINT ["/bin/echo", "child"]
HEALTHCHECK NONE
STOPSIGNAL 9

FROM child
CMD shell form $HOME
ENTRYPOINT []
