config
config nix
create -d fake default
config
config default
config default default
config --swarm
create -d fake --swarm-master --swarm-discovery token://x --swarm-host tcp://0.0.0.0:9 master
config master --swarm
stop default
config
