start
stop nix
kill
restart nix nux
create -d fake default
create -d none --url tcp://127.0.0.1:9 bare
start
stop
stop
kill
start
kill
restart
restart
stop default nix
status
stop bare
kill bare
restart bare
start bare
