#!/bin/bash
# Prints the state of the platform of docker-compose.yml: the services, nodetool status, and the targets of Prometheus. The exit status
# is 1 unless everything is healthy.
set -u
wrong=0
docker compose --profile '*' ps --all --format 'table {{.Service}}\t{{.Status}}'
docker compose --profile '*' ps --all --format '{{.State}} {{.ExitCode}} {{.Health}}' |
    grep -vE '^(running 0 (healthy)?|exited 0 )$' >/dev/null && wrong=1

ring=
for node in $(docker compose ps --services --status running | grep '^cassandra-dc'); do
    ring=$(docker compose exec -T -e MAX_HEAP_SIZE=64M "$node" nodetool status fleet_iot 2>/dev/null) && break
done
echo
if [[ $ring ]]; then
    echo "$ring"
    ! grep -qE '^[UD][NLJM] ' <<<"$ring" && wrong=1
    grep -E '^[UD][NLJM] ' <<<"$ring" | grep -qv '^UN' && wrong=1
else
    echo "Cassandra: no node answers"
    wrong=1
fi

echo
targets=$(docker compose exec -T prometheus promtool query instant http://localhost:9090 up 2>&1) || wrong=1
if grep -q '=>' <<<"$targets"; then
    sed -nE 's/^up\{(.*)\} => ([01]) .*/\2 \1/p' <<<"$targets" | sort |
        while read -r up labels; do printf '%-5s%s\n' "$( ((up)) && echo up || echo DOWN)" "$labels"; done
    grep -q '=> 0 ' <<<"$targets" && wrong=1
else
    echo "Prometheus: $targets"
    wrong=1
fi
exit $wrong
