# Lists that are none, quotes, signals, escapes at the end of a line: what is odd and still means something.
FROM busybox AS first
COPY "text/one.txt" '/quoted/'
COPY text/one.txt\ text/two.txt /escaped/
ADD 'text/two.txt' "/added"
RUN echo a \\
RUN [ -e /bin/sh ]
ONBUILD   run   echo   a  b >/spaced
ONBUILD CMD ['single', 'quotes']
ONBUILD VOLUME /kept "/quoted"
FROM first AS second
VOLUME ["/with space", " /trimmed "]
VOLUME '/single' "/double"
STOPSIGNAL sigrtmin+3
HEALTHCHECK CMD ['a']
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT [ "open"
