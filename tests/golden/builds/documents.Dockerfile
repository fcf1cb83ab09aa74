# syntax=docker/dockerfile:1
FROM busybox
ENV NAME=world
RUN <<EOF
echo "hello $NAME" >/hello
echo second >>/hello
EOF
RUN <<-"SCRIPT" sh -e
	echo "$NAME" >/dashed
	SCRIPT
RUN cat <<ONE >/one && cat <<'TWO' >/two
$NAME
ONE
$NAME
TWO
COPY <<A.txt <<"B.txt" /docs/
from $NAME
A.txt
from $NAME
B.txt
COPY --chmod=0640 --chown=1000:10 <<file /named
text
file
