env
create -d fake default
SHELL=/bin/bash env
SHELL=/usr/bin/zsh env default
env --shell sh
env --shell fish
env --shell powershell
env --shell cmd
env --shell tcsh
env --shell emacs
env --shell never-heard-of --no-proxy
NO_PROXY=localhost env --shell bash --no-proxy
no_proxy=a NO_PROXY=b env --shell fish --no-proxy
SHELL=/bin/bash env -u
env -u --shell fish
env -u --shell powershell
env -u --shell cmd
env -u --shell tcsh
env -u --shell emacs
NO_PROXY=b env --unset --no-proxy --shell bash
env -u default
env a b
env nix
SHELL= env
env --swarm
create -d fake --swarm-master --swarm-discovery token://x --swarm-host tcp://0.0.0.0:9 master
env --swarm --shell bash master
create -d none --url tcp://127.0.0.1:9 bare
env --shell bash bare
stop default
env --shell bash
