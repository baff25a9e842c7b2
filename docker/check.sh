#!/usr/bin/env bash
# Builds the images, runs docker-compose.yml for real and holds what it does against what the guide says.
#
#   bash docker/check.sh [PART ...]     parts, in this order: build up network backup replicas sticky watch train embedded
#
# Needs a Docker engine with BuildKit, docker compose (or docker-compose 1.29) and python3. Everything that it starts
# lives in one compose project of its own and is taken down at the end, volumes included; the images stay.
#
#   PIP_FIND_LINKS    a folder or page with torch's CPU build; a folder is served to the builds for as long as they last
#   STAND_INS=1       make database, balancer and Prometheus of Debian's packages, where their images cannot be fetched
#   START_TIMEOUT_S   how long a start may take (default 600)
#
# Exit: 0 when every check passed, 1 at the first that did not, with the containers' last words.
set -euo pipefail
cd "$(dirname "$0")/.."
PARTS=${*:-build up network backup replicas sticky watch train embedded}
START_TIMEOUT_S=${START_TIMEOUT_S:-600}
SCRATCH=$(mktemp -d)
chmod 755 "$SCRATCH"  # a container reads the backup in it, and it is not root
export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 COMPOSE_PROJECT_NAME=metabolismcheck COMPOSE_PROFILES=cpu
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
PORT=$(free_port)
URL=http://127.0.0.1:$PORT
export PUBLISH=127.0.0.1:$PORT
POSTGRES_PASSWORD=$(python3 -c 'import secrets; print(secrets.token_urlsafe(16))')
export POSTGRES_PASSWORD
ALL="--profile cpu --profile embedded --profile postgres --profile train --profile observability"

if docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"; else COMPOSE=docker-compose; fi
compose() { $COMPOSE "$@"; }
say() { printf '\n%s  == %s\n' "$(date +%H:%M:%S)" "$*"; }
pass() { printf '%s  ok: %s\n' "$(date +%H:%M:%S)" "$*"; }
die() {
  printf '%s  FAILED: %s\n' "$(date +%H:%M:%S)" "$*" >&2
  # shellcheck disable=SC2086
  compose $ALL logs --tail=15 2>&1 | tail -60 >&2 || true
  exit 1
}
equal() { [ "$2" = "$3" ] || die "$1: got «$2», expected «$3»"; pass "$1: $2"; }
down() { # shellcheck disable=SC2086
  compose $ALL down --volumes --remove-orphans --timeout 20 >/dev/null 2>&1 || true; }
finish() {
  down
  docker rm --force metabolismcheck-stranger metabolismcheck-stub-1 metabolismcheck-stub-2 metabolismcheck-sticky \
    >/dev/null 2>&1 || true
  docker network rm metabolismcheck-strangers >/dev/null 2>&1 || true
  [ -z "${WHEELS_PID:-}" ] || kill "$WHEELS_PID" 2>/dev/null || true
  rm -rf "$SCRATCH"
}
trap finish EXIT
client() { python3 docker/check/client.py "$@"; }
ask() { client ask "$URL" "$KEY" "${1:-What is the capital of Kenya?}" | cut -f1; }
container() { # shellcheck disable=SC2086
  compose $ALL ps -q "$1"; }
health() { docker inspect -f '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' "$1"; }

await() {  # NAME...: until each of these is healthy
  local began=$SECONDS name id
  for name in "$@"; do
    while id=$(container "$name"); [ -z "$id" ] || [ "$(health "$id")" != "running healthy" ]; do
      [ $((SECONDS - began)) -lt "$START_TIMEOUT_S" ] || die "$name was not healthy within $START_TIMEOUT_S s"
      sleep 1
    done
  done
  pass "healthy after $((SECONDS - began)) s: $*"
}

read_key() {  # SERVICE...: the first admin key, which their logs show once between them
  local shown
  shown=$(compose $ALL logs --no-color "$@" 2>&1 | grep -o 'dm-[A-Za-z0-9_-]\{20,\}' || true)
  equal "times that the first admin key stands in the log" "$(printf '%s' "$shown" | grep -c . || true)" 1
  KEY=$shown
}

serve_wheels() {  # a folder of wheels is reached by the builds over HTTP, at the engine's own bridge
  [ -d "${PIP_FIND_LINKS:-}" ] || return 0
  local gateway port=${WHEELS_PORT:-8765}  # the same each time, for a build argument is part of what Docker caches by
  gateway=$(docker network inspect bridge -f '{{(index .IPAM.Config 0).Gateway}}')
  python3 -m http.server --bind "$gateway" --directory "$PIP_FIND_LINKS" "$port" >/dev/null 2>&1 &
  WHEELS_PID=$!
  export PIP_FIND_LINKS="http://$gateway:$port/" PIP_TRUSTED_HOST=$gateway
}

stand_ins() {
  [ "${STAND_INS:-}" = 1 ] || return 0
  local target
  for target in database balancer prometheus; do
    docker image inspect "metabolismcheck-$target" >/dev/null 2>&1 \
      || docker build --quiet --file docker/check/Dockerfile --target "$target" --tag "metabolismcheck-$target" . >/dev/null
  done
  export DATABASE_IMAGE=metabolismcheck-database BALANCER_IMAGE=metabolismcheck-balancer
  export PROMETHEUS_IMAGE=metabolismcheck-prometheus
}

part_build() {
  say "Build the images"
  serve_wheels
  local target
  for target in service engine embedded trainer; do
    compose $ALL build "$target" >"$SCRATCH/build.log" 2>&1 || { tail -30 "$SCRATCH/build.log"; die "building $target"; }
    local image
    image=$(compose $ALL config | python3 -c "import sys; lines = sys.stdin.read().split('  $target:\n')[1]; \
print(lines.split('image: ')[1].split()[0])")
    pass "$image: $(docker image inspect -f '{{.Size}}' "$image" | awk '{printf "%.2f GB", $1 / 1e9}'), user $(docker image inspect -f '{{.Config.User}}' "$image")"
  done
}

part_up() {
  say "docker compose up: ask, swap a fact, restart everything, ask again"
  compose up -d >"$SCRATCH/up.log" 2>&1 || { cat "$SCRATCH/up.log"; die "docker compose up"; }
  await engine service
  equal "/health/live" "$(client status "$URL" /health/live)" 200
  equal "a question without a key" "$(client status "$URL" /v1/models)" 401
  read_key service
  equal "the capital of Kenya" "$(ask)" Nairobi
  pass "swapped in generation $(client swap "$URL" "$KEY" Kenya capital Mombasa)"
  equal "the capital of Kenya, swapped" "$(ask)" Mombasa
  compose restart --timeout 20 >/dev/null 2>&1
  await engine service
  equal "after a restart of every container" "$(ask)" Mombasa
  compose up -d --force-recreate --no-deps facts service >/dev/null 2>&1
  await service
  equal "after new containers, the demo facts offered again" "$(ask)" Mombasa
  local wrong
  wrong=$(compose run --rm --no-deps -e METABOLISM_PORT=eighty service serve 2>&1 || true)
  case $wrong in *METABOLISM_PORT*|*--port*) pass "a wrong setting stops the start: $(grep -m1 -i port <<<"$wrong")" ;; *) die "a wrong METABOLISM_PORT: $wrong" ;; esac
}

listening() {  # the ADDRESS:PORT that any container of the project listens on, with its name
  local id address ports port
  for id in $(compose $ALL ps -q); do
    [ "$(docker inspect -f '{{.State.Running}}' "$id")" = true ] || continue
    ports=$(docker exec -i "$id" python3 - <docker/check/listening.py 2>/dev/null || echo 5432)
    for address in $(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$id"); do
      for port in $ports; do echo "$address:$port"; done
    done
  done
}

part_network() {
  say "A hostile view of the network: only the service's port answers"
  local targets published gateway answers engine
  targets=$(listening | sort -u)
  [ -n "$targets" ] || die "no container listens anywhere"
  docker network create metabolismcheck-strangers >/dev/null
  gateway=$(docker network inspect metabolismcheck-strangers -f '{{(index .IPAM.Config 0).Gateway}}')
  # shellcheck disable=SC2086
  answers=$(docker run --rm -i --name metabolismcheck-stranger --network metabolismcheck-strangers --entrypoint python \
    "${SERVICE_IMAGE:-metabolism-service:0.1.0}" - $targets "$gateway:8000" "$gateway:5432" <docker/check/scan.py)
  equal "of $(wc -w <<<"$targets") listening addresses, these answer a stranger" "«$answers»" "«»"
  published=$(docker ps --filter label=com.docker.compose.project=metabolismcheck --format '{{.Ports}}' | grep -c -- '->' || true)
  equal "published ports" "$published" 1
  # shellcheck disable=SC2086
  answers=$(docker run --rm -i --name metabolismcheck-stranger --network metabolismcheck_front --entrypoint python \
    "${SERVICE_IMAGE:-metabolism-service:0.1.0}" - $targets engine:8000 database:5432 service:8000 <docker/check/scan.py)
  for engine in $(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$(container engine)"); do
    case $answers in *"$engine"*|*engine:*) die "a neighbour in front reaches the engine: $answers" ;; esac
  done
  case $answers in *service:8000*) pass "a neighbour on the service's own network reaches it, and no engine: $answers" ;; *) die "the scan found not even the service: $answers" ;; esac
  equal "the engine's only network" "$(docker inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' "$(container engine)")" \
    "metabolismcheck_inside "
  equal "that network is internal: no way out, none in" "$(docker network inspect -f '{{.Internal}}' metabolismcheck_inside)" true
}

part_backup() {
  say "Back up the RAM, change it, restore it"
  local service
  service=$(container service)
  equal "the capital of Kenya before the backup" "$(ask)" Mombasa
  docker exec "$service" metabolism knowledge backup /data/backup.sqlite >/dev/null || die "knowledge backup"
  docker cp "$service:/data/backup.sqlite" "$SCRATCH/backup.sqlite"
  pass "a backup of $(wc -c <"$SCRATCH/backup.sqlite") bytes, taken while the service runs"
  client swap "$URL" "$KEY" Kenya capital Kisumu >/dev/null
  equal "the capital of Kenya after the backup" "$(ask)" Kisumu
  compose stop --timeout 20 service >/dev/null 2>&1
  compose run --rm --no-deps -v "$SCRATCH:/backup:ro" service knowledge restore /backup/backup.sqlite >"$SCRATCH/restore.log" 2>&1 \
    || { cat "$SCRATCH/restore.log"; die "knowledge restore"; }
  compose up -d --no-deps service >/dev/null 2>&1
  await service
  equal "the capital of Kenya, restored" "$(ask)" Mombasa
}

part_train() {
  say "Train a core of the tiny world offline, and serve it"
  down
  KEY=
  export COMPOSE_PROFILES=cpu
  compose $ALL run --rm trainer pretrain /train/tiny-base.yaml >"$SCRATCH/train.log" 2>&1 || { tail -30 "$SCRATCH/train.log"; die "pretrain"; }
  compose $ALL run --rm trainer train /train/tiny-core.yaml >"$SCRATCH/train.log" 2>&1 || { tail -30 "$SCRATCH/train.log"; die "train"; }
  pass "the job ended: $(tail -1 "$SCRATCH/train.log")"
  METABOLISM_CORE=/cores/tiny/core compose up -d >/dev/null 2>&1
  await engine service
  read_key service
  equal "the core that is served" "$(docker exec "$(container service)" python -c 'import json, urllib.request as r; print(json.load(r.urlopen("http://127.0.0.1:8000/health/ready"))["core"])')" core
  local told
  told=$(client look-up "$URL" "$KEY" docker/train/people.ndjson) || die "the trained core: $told"
  pass "$told"
}

part_replicas() {
  say "Two replicas over one RAM in PostgreSQL"
  stand_ins
  [ -z "$KEY" ] || compose stop --timeout 20 service >/dev/null 2>&1  # the engine goes on, and so do the keys
  export COMPOSE_PROFILES=postgres
  compose up -d >"$SCRATCH/up.log" 2>&1 || { cat "$SCRATCH/up.log"; die "docker compose --profile postgres up"; }
  await database engine replica-a replica-b
  [ -n "$KEY" ] || read_key replica-a replica-b
  local inside
  inside() { docker exec -i "$(container "$1")" python - "${@:2}" <docker/check/client.py; }
  equal "replica-b, before" "$(inside replica-b ask http://127.0.0.1:8000 "$KEY" 'What is the capital of Kenya?' | cut -f1)" Nairobi
  inside replica-a swap http://127.0.0.1:8000 "$KEY" Kenya capital Mombasa >/dev/null
  equal "replica-b, at once after a write through replica-a" "$(inside replica-b ask http://127.0.0.1:8000 "$KEY" 'What is the capital of Kenya?' | cut -f1)" Mombasa
  equal "the balancer's answer" "$(ask)" Mombasa
  say "A rolling restart under load"
  client load "$URL" "$KEY" "${LOAD_S:-75}" >"$SCRATCH/load.log" 2>&1 &
  local load=$!
  sleep 5
  compose restart --timeout 60 replica-a >/dev/null 2>&1; await replica-a; sleep 3
  compose restart --timeout 60 replica-b >/dev/null 2>&1; await replica-b
  wait "$load" || { cat "$SCRATCH/load.log"; compose logs --no-color --timestamps balancer | tail -40; die "the load lost something"; }
  pass "$(cat "$SCRATCH/load.log")"
  compose restart --timeout 60 database >/dev/null 2>&1
  await database
  local tries
  for tries in $(seq 60); do [ "$(client status "$URL" /health/ready)" = 200 ] && break; sleep 1; done
  equal "after a restart of the database, ready again after $tries s" "$(ask)" Mombasa
}

part_sticky() {
  say "The engines' balancer keeps every hop of a question on one engine"
  stand_ins
  docker network create metabolismcheck-strangers >/dev/null 2>&1 || true
  local number
  for number in 1 2; do
    docker run -d --name "metabolismcheck-stub-$number" --hostname "engine-$number" --network metabolismcheck-strangers \
      --network-alias "engine-$number" -v "$PWD/docker/check:/check:ro" --entrypoint python \
      "${SERVICE_IMAGE:-metabolism-service:0.1.0}" /check/engine_stub.py >/dev/null
  done
  docker run -d --name metabolismcheck-sticky --network metabolismcheck-strangers -v "$PWD/docker/balancer:/balancer:ro" \
    "${BALANCER_IMAGE:-haproxy:3.2.4-alpine}" haproxy -db -f /balancer/engine.cfg >/dev/null
  sleep 5
  docker exec -i metabolismcheck-stub-1 python - <docker/check/sticky.py || die "hops of one question went to two engines"
  docker rm --force metabolismcheck-stub-1 metabolismcheck-stub-2 metabolismcheck-sticky >/dev/null
  pass "no question met two engines"
}

part_watch() {
  say "Prometheus sees the replicas and the engine"
  stand_ins
  docker run --rm -v "$PWD/docker/prometheus:/etc/prometheus:ro" --entrypoint promtool "${PROMETHEUS_IMAGE:-prom/prometheus:v3.5.0}" \
    check config /etc/prometheus/prometheus.yml >"$SCRATCH/promtool.log" 2>&1 || { cat "$SCRATCH/promtool.log"; die "promtool"; }
  pass "promtool finds nothing wrong with the configuration and its alerts"
  compose --profile "$COMPOSE_PROFILES" --profile observability up -d --no-deps prometheus >/dev/null 2>&1
  local up="" tries front=service
  [ "$COMPOSE_PROFILES" = cpu ] || front=replica-a
  for tries in $(seq 30); do
    up=$(docker exec -i "$(container "$front")" python - <docker/check/targets.py || true)
    case $up in *down*|*unknown*|"") sleep 2 ;; *engine*service*) break ;; *) sleep 2 ;; esac
  done
  case $up in *down*|*unknown*|"") die "Prometheus' targets after $tries tries: $up" ;; *engine*service*) pass "$up" ;; *) die "Prometheus' targets: $up" ;; esac
}

part_embedded() {
  say "The service alone, with the engine in its own process"
  down
  KEY=
  export COMPOSE_PROFILES=embedded
  compose up -d >"$SCRATCH/up.log" 2>&1 || { cat "$SCRATCH/up.log"; die "docker compose --profile embedded up"; }
  await embedded
  read_key embedded
  equal "the capital of Kenya" "$(ask)" Nairobi
}

KEY=
down
for part in $PARTS; do "part_$part"; done
say "Everything passed: $PARTS"
