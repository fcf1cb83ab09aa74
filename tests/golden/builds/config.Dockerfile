# What only configures: every instruction that makes no layer, in both forms.
FROM busybox
LABEL maintainer="somebody" org.example.text="two words" org.example.empty=""
LABEL org.example.more=1 \
      org.example.quoted='single $HOME'
ENV LEGACY value with  spaces
ENV ONE=1 TWO="2 two" THREE=three\ words
ENV ONE=first PATH=/opt/bin:$PATH
EXPOSE 80 443/tcp 53/udp 7000-7002
VOLUME /data /more
VOLUME ["/var/lib/one", "/var/lib/two"]
USER 1000:10
WORKDIR /srv
WORKDIR app
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=7s --timeout=2s --start-period=1m --retries=4 CMD wget -q localhost || exit 1
SHELL ["/bin/ash", "-ec"]
ENTRYPOINT exec echo "$ONE"
CMD ["--flag", "a b"]
