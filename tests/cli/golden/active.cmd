active
create -d fake web
create -d none --url tcp://127.0.0.1:9 bare
active
DOCKER_HOST=URL(web) active
DOCKER_HOST=URL(web) active -t 20
DOCKER_HOST=tcp://127.0.0.1:9 active
active web
# A machine whose URL nobody knows is not active where DOCKER_HOST is not set.
DOCKER_HOST= active
