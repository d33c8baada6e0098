ip
url
status
version default
create -d fake default
create -d fake b
create -d none --url tcp://127.0.0.1:9 bare
ip
ip b default
ip bare
ip nix b nux
url
url bare
url a b
status
status a b
version b
version a b
stop b
ip default b
ip b
url b
status b
version b
status nix
