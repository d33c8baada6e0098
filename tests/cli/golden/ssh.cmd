ssh
ssh nix
create -d fake default
create -d none --url tcp://127.0.0.1:9 bare
stop
ssh
ssh default uptime
ssh bare
