# 1.1: no arguments is help; what there is not is told, with the reference's exit codes.
version
-v
--version
version a b
nix
help nix
--nix ls
--storage-path
-tls-ca-cert=x -v
ls --nix
ls -nix
ls -t
ls -t soon
ls -t 9223372036854775808
ls -t 9223372036854775807
ls --timeout=soon
ls --quiet=maybe
rm ---x
active extra
MACHINE_DEBUG=maybe ls
MACHINE_DEBUG=0 ls -q
MACHINE_DEBUG=TRUE ls -q
# Flags with one dash or two, with = or without, before names or after; and what `--` ends.
create -driver fake -fake-memory=1g one
create --driver=fake two --fake-memory 1g
status one -- 
ls -quiet
ls --quiet=true
rm one -y
rm -y=false two <<< n
rm -- -y
rm --y two
