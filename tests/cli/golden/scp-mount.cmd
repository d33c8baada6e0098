scp
scp a
scp a b c
scp nix:a b
scp a jo@nix:
scp -nix a b
create -d fake web
create -d none --url tcp://127.0.0.1:9 bare
scp bare:a b
stop web
scp web:a b
scp -r -q a web:
mount
mount a b c
