#!/bin/bash
# Prints the state and the last log lines of each unhealthy service of docker-compose.yml.
docker compose --profile '*' ps --all --format '{{.ID}} {{.Service}} {{.State}} {{.ExitCode}} {{.Health}}' |
    while read -r id service state code health; do
        problem=$(docker inspect --format '{{.State.Error}}' "$id")
        case "$state $code $health" in
            created*)
                [[ -z $problem ]] || printf '\n%s: did not start: %s\n' "$service" "$problem"
                continue
                ;;
            "exited 0 " | "running 0 healthy" | "running 0 starting" | "running 0 ") continue ;;
        esac
        printf '\n%s: %s%s' "$service" "$state" "${health:+, $health}"
        [[ $state == running ]] || printf ', exit status %s' "$code"
        [[ $(docker inspect --format '{{.State.OOMKilled}}' "$id") == false ]] || printf ', killed: its memory limit is too low (mem_limit; of a node, CASSANDRA_MEMORY in .env)'
        echo
        docker inspect --format '{{with .State.Health}}{{with .Log}}{{(index . 0).Output}}{{end}}{{end}}' "$id" | sed '/^$/d; s/^/    health check: /'
        docker logs --tail 8 "$id" 2>&1 | cut -c 1-600 | sed 's/^/    /'
    done
