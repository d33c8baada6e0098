# What scripts and completions read: Usage, Options, Commands, in the reference's layout.
help
h
active --help
help config
env -h
inspect -help
ip --help
kill --help
ls --help
mount --help
restart --help
rm --help
scp --help
ssh --help
ssh -h
start --help
status --help
stop --help
url --help
version --help
help help
