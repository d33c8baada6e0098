inspect
inspect nix
inspect a b
create -d fake web --engine-label zone=a --engine-label tier=front --engine-opt mtu=1400 --engine-env HTTP_PROXY=http://jo:secret@proxy --engine-insecure-registry r.example --engine-registry-mirror https://m.example --engine-storage-driver overlay2 --tls-san web.example --swarm --swarm-discovery token://x
inspect web
inspect -f {{.DriverName}} web
inspect --format={{.Driver.SSHUser}} web
inspect web -f "{{json .HostOptions.EngineOptions.Labels}} {{.Nix}}"
inspect web -f "{{prettyjson .HostOptions.SwarmOptions}}"
inspect web -f "{{index .HostOptions.EngineOptions.Labels 1}}{{range $i, $l := .HostOptions.EngineOptions.Labels}} {{$i}}={{$l}}{{end}}"
inspect web -f "{{if .HostOptions.SwarmOptions.Master}}master{{else}}worker{{end}} {{.Name | printf `%s!`}}"
inspect web -f "{{.Name"
inspect web -f "{{foo .Name}}"
inspect web -f "{{.Name.More}}"
