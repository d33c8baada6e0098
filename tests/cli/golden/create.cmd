create -d fake
create -d fake a b c
create -d fake ""
create -d fake ∞
create -d fake a_b
create -d fake -
create -d fake .
create -d fake a --swarm-discovery nothing
create -d bogus bogus
create -d none a
create -d fake a --fake-memory lots
create -d fake a --fake-memory
create -d fake a --nix
create -d fake a --fake-unavailable "no moon"
create -d generic --generic-ip-address 127.0.0.1 --generic-ssh-key /nowhere a
create -d fake a --fake-fail-create disk
ls
create --driver fake a
create -d fake a
MACHINE_DRIVER=none create --url tcp://127.0.0.1:9 0
create -d fake --swarm --swarm-discovery token://x s
