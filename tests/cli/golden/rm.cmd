rm
rm nix
rm -y nix
rm -f nix
create -d fake a
create -d fake b
create -d fake c
rm a <<< n
rm a <<<
rm a <<< "yes please"
rm a b <<< YES
ls -q
rm -y nix c
create -d fake --fake-fail-destroy d
rm -y d
rm -f d
ls -q
