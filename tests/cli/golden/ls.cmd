ls
create -d fake --swarm --swarm-discovery token://x web10
create -d fake --swarm-master --swarm-discovery token://x --engine-label zone=A Web9
create -d fake --engine-label zone=b --engine-label tier=front Db
create -d none --url tcp://127.0.0.1:9 bare
create -d none --url none odd
stop Db
ls
DOCKER_HOST=URL(web10) ls
DOCKER_HOST=SWARM(Web9) ls --filter name=9
ls -q
ls --filter driver=NONE
ls --filter driver=none --filter driver=fake -q
ls --filter state=stopped
ls -q --filter state=running --filter driver=fake
ls -q --filter StaTe=Running --filter name=^web
ls -q --filter name=^w.*9 --filter name=a
ls -q --filter label=zone=a
ls -q --filter label=zone --filter label=tier=front
ls -q --filter swarm=WEB9
ls -q --filter swarm=web9 --filter driver=fake --filter name=1
ls -q --filter name=nobody
ls --filter name
ls --filter foo=bar
ls --filter name=(
ls --filter name=(?=a)
ls -q --filter 'name=^b[[:alpha:]]*(?i)E$|9\z'
ls -f "{{.Name}} {{.Active}} {{.ActiveHost}} {{.ActiveSwarm}} {{.DriverName}} {{.State}} {{.Swarm}}"
ls --filter driver=fake -f "{{.Name}}: {{.SwarmOptions.Discovery}} {{.EngineOptions.Labels}} {{json .DockerVersion}}"
ls --filter driver=fake --format "table {{.Name}}\t{{.DockerVersion}}\n{{.URL}}"
ls --filter driver=none -f "table {{.ActiveHost}}\t{{.ActiveSwarm}}\t{{.DriverName}}\t{{.State}}"
ls --filter name=odd -f "table{{.Name}}"
ls -f "{{.Nix}}"
ls --filter name=bare -f "{{.SwarmOptions.Nope}}"
ls --filter name=bare -f "{{.EngineOptions.Nope}}"
ls -f "table {{.Nix}}"
ls -f "{{.Name"
ls --filter name=bare --format json
ls anything -q
