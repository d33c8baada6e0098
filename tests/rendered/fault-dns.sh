set -e
case $(tc qdisc show dev eth0 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth0 root ;;
esac
case $(tc qdisc show dev eth1 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth1 root ;;
esac
nft -f - <<'END'
table inet pytest_machine
delete table inet pytest_machine
table netdev pytest_machine
delete table netdev pytest_machine
table netdev pytest_machine {
  chain leaving {
    type filter hook egress devices = { eth0, eth1 } priority 0; policy accept;
    meta l4proto { tcp, udp, sctp } th dport 53 fwd to "lo"
    meta l4proto { tcp, udp, sctp } th sport 53 fwd to "lo"
  }
}
END
