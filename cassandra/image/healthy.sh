#!/bin/bash
# Succeeds if the node answers CQL, which it does once it has joined. It sends OPTIONS, the only request without a login.
# Frames follow section 2 of native_protocol_v4.spec: version, flags, stream (2), opcode, length (4).
set -eu
exec 3<>/dev/tcp/127.0.0.1/9042
printf '\x04\x00\x00\x00\x05\x00\x00\x00\x00' >&3
opcode=$(head -c 5 <&3 | od -An -t x1 -j 4)
[[ $opcode == ' 06' ]] || { echo "CQL answers with opcode$opcode, not 06 (SUPPORTED)" && exit 1; }
