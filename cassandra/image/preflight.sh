#!/bin/bash
# Runs before the first node starts. It rejects memory settings that cannot work, and gives each service its passwords: from
# secrets/ if the file exists, otherwise from the previous start, otherwise new ones.
set -euo pipefail

refuse() { echo "preflight: $*" >&2 && exit 1; }

mib() { # VARIABLE: a size such as 512M or 2G, in MiB
    [[ ${!1} =~ ^([0-9]+)([MmGg])$ ]] || refuse "$1=${!1}: give a size such as 512M or 2G"
    case ${BASH_REMATCH[2]} in
        [Mm]) echo "${BASH_REMATCH[1]}" ;;
        *) echo "$((BASH_REMATCH[1] * 1024))" ;;
    esac
}

heap=$(mib CASSANDRA_HEAP)
limit=$(mib CASSANDRA_MEMORY)
engine=$(($(awk '/^MemTotal:/ { print $2 }' /proc/meminfo) / 1024))
((heap >= 256)) || refuse "too little memory: CASSANDRA_HEAP=$CASSANDRA_HEAP: a node needs 256M of heap; set it in .env"
((limit >= heap + 512)) || refuse "too little memory: CASSANDRA_MEMORY=$CASSANDRA_MEMORY for CASSANDRA_HEAP=$CASSANDRA_HEAP:" \
    "a node needs 512M in addition to its heap; set CASSANDRA_MEMORY=$((heap + 512))M or more in .env"
need=$((NODES * limit + 1024))
((engine >= need)) || refuse "too little memory: Docker has $engine MiB, $NODES nodes of $limit MiB and the rest take $need MiB:" \
    "give Docker more (Docker Desktop: Settings, Resources), lower CASSANDRA_HEAP and CASSANDRA_MEMORY in .env, or use compose.small.yml"

put() { # NAME VALUE FOLDER: replaces the file atomically
    printf '%s' "$2" >"/secrets/$3/.$1"
    chmod 444 "/secrets/$3/.$1"
    mv "/secrets/$3/.$1" "/secrets/$3/$1"
}

made=/secrets/init/made

generate() { # NAME: a generated password is kept even if secrets/ has another later
    [[ ! -e $made/$1 ]] || return 0
    put "$1" "$(head -c 24 /dev/urandom | base64 | tr +/ -_)" init/made
    echo "preflight: generated $1"
}

password() { # NAME FOLDER…: folders other than init
    local name=$1 value
    if [[ -e /given/$name ]]; then
        value=$(</given/"$name")
        [[ $value =~ ^[!-#%-~]{8,}$ ]] || refuse "secrets/$name: give one line of 8 or more visible ASCII characters without spaces and \$"
    else
        generate "$name"
        value=$(<"$made/$name")
    fi
    for folder in init "${@:2}"; do put "$name" "$value" "$folder"; done
}

mkdir -p "$made"
password cassandra_admin_password
password cassandra_writer_password etl
password cassandra_reader_password grafana tools
password grafana_admin_password grafana
generate redis_password # only the two services need it
put redis_password "$(<"$made/redis_password")" redis
put redis_url "redis://:$(<"$made/redis_password")@redis:6379/0" etl
if [[ -e /given/http_tokens ]]; then
    put http_tokens "$(</given/http_tokens)"$'\n' etl
fi
