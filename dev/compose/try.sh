#!/bin/bash
# Tests docker-compose.yml on a Docker engine, with its own project, network and ports, which it removes at the end. It takes about ten
# minutes. It stops a node while records flow, and starts it again. The exit status is 0 if everything works.
set -euo pipefail
cd "$(dirname "$0")/../.."
export COMPOSE_PROJECT_NAME=fleet-tracing-try SUBNET=172.30.78 GRAFANA_PORT=13000 PROMETHEUS_PORT=19090 ALERTMANAGER_PORT=19093 \
    API_PORT=18080 ETL_METRICS_PORT=19464 CQL_PORT=19042 KAFKA_PORT=19094 CASSANDRA_WEB_PORT=18889
compose() { docker compose --profile '*' "$@"; }
trap 'status=$?; ((status == 0)) || dev/compose/why.sh; compose down --volumes >/dev/null 2>&1; exit $status' EXIT

say() { printf '\n%s %s\n' "$(date -u +%T)" "$*"; }
sum() { curl -fsS "127.0.0.1:$ETL_METRICS_PORT/metrics" | awk -v name="$1" '$1 ~ "^" name "[{]" { n += $NF } END { printf "%d\n", n }'; }
grafana() { # rows of the latest positions, through the data source
    curl -fsS -u "admin:$(compose exec -T grafana cat /run/secrets/grafana_admin_password)" "localhost:$GRAFANA_PORT/api/ds/query" -H 'Content-Type: application/json' -d '{"from":"now-1h","to":"now","queries":[{"refId":"A",
        "datasource":{"uid":"fleet"},"queryType":"latest","fleets":["fleet-001"],"format":"table"}]}' | grep -o '"values":\[\[[^]]*' | head -1 | tr ',' '\n' | wc -l
}
flows() { # records are stored, and Grafana shows them
    local before rows
    before=$(sum fleet_etl_records_written_total)
    sleep 15
    rows=$(grafana)
    echo "rows written in 15 s: $(($(sum fleet_etl_records_written_total) - before)); vehicles that Grafana shows: $rows"
    (($(sum fleet_etl_records_written_total) > before && rows >= 50))
}
cql() { # ROLE CQL
    compose exec -T cassandra-dc1-node1 cqlsh -u "$1" -p "$(compose run -T --rm --no-deps --entrypoint cat preflight "/secrets/init/cassandra_${1#fleet_}_password" 2>/dev/null)" -e "$2"
}

say "docker compose up -d --wait"
docker compose up -d --wait
for _ in {1..20}; do dev/compose/status.sh >/dev/null && break || sleep 3; done # the first scrapes
dev/compose/status.sh
flows

say "visitors need a login"
[[ $(curl -s -o /dev/null -w '%{http_code}' "localhost:$GRAFANA_PORT/api/search") == 401 ]]

say "fleet_reader can only read"
cql fleet_reader "SELECT count(*) FROM fleet_iot.devices_by_fleet WHERE fleet_id = 'fleet-001'"
for denied in "DELETE FROM fleet_iot.fleets WHERE shard = 0" "CREATE TABLE fleet_iot.x (a int PRIMARY KEY)" "CREATE ROLE x"; do
    if said=$(cql fleet_reader "$denied" 2>&1) || ! grep Unauthorized <<<"$said"; then
        say "fleet_reader may run: $denied: $said"
        exit 1
    fi
done

say "docker compose stop cassandra-dc1-node2"
docker compose stop cassandra-dc1-node2
flows
docker compose exec -T cassandra-dc1-node1 nodetool status fleet_iot | grep '^DN'

say "docker compose start cassandra-dc1-node2"
docker compose start cassandra-dc1-node2
for _ in {1..60}; do dev/compose/status.sh >/dev/null && break || sleep 3; done
dev/compose/status.sh
flows
