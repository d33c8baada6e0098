set -e
case $(tc qdisc show dev eth0 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth0 root ;;
esac
case $(tc qdisc show dev eth1 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth1 root ;;
esac
tc qdisc add dev eth0 root handle 7074: htb default 0
tc class add dev eth0 parent 7074: classid 7074:1 htb rate 100gbit quantum 60000
tc class add dev eth0 parent 7074:1 classid 7074:2 htb rate 100gbit quantum 60000
tc qdisc add dev eth0 parent 7074:2 netem limit 100000 duplicate 50%
tc qdisc add dev eth1 root handle 7074: htb default 0
tc class add dev eth1 parent 7074: classid 7074:1 htb rate 100gbit quantum 60000
tc class add dev eth1 parent 7074:1 classid 7074:2 htb rate 100gbit quantum 60000
tc qdisc add dev eth1 parent 7074:2 netem limit 100000 duplicate 50%
nft -f - <<'END'
table inet pytest_machine
delete table inet pytest_machine
table netdev pytest_machine
delete table netdev pytest_machine
table netdev pytest_machine {
  chain leaving {
    type filter hook egress devices = { eth0, eth1 } priority 0; policy accept;
    ip daddr { 10.213.0.3, 10.214.0.3 } meta priority set 7074:2
    ip6 daddr { fd00::3 } meta priority set 7074:2
  }
}
END
