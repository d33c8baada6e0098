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
    oifname "eth0" ip daddr { 10.213.0.3, 10.214.0.3 } meta mark != 0x70740000 numgen random mod 1000000 < 500000 meta mark set 0x70740000 dup to "eth0"
    oifname "eth0" ip6 daddr { fd00::3 } meta mark != 0x70740000 numgen random mod 1000000 < 500000 meta mark set 0x70740000 dup to "eth0"
    oifname "eth1" ip daddr { 10.213.0.3, 10.214.0.3 } meta mark != 0x70740000 numgen random mod 1000000 < 500000 meta mark set 0x70740000 dup to "eth1"
    oifname "eth1" ip6 daddr { fd00::3 } meta mark != 0x70740000 numgen random mod 1000000 < 500000 meta mark set 0x70740000 dup to "eth1"
  }
}
END
