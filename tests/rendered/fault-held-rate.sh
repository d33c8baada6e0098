set -e
case $(tc qdisc show dev eth0 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth0 root ;;
esac
case $(tc qdisc show dev eth1 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth1 root ;;
esac
tc qdisc add dev eth0 root handle 7074: htb default 0
tc class add dev eth0 parent 7074: classid 7074:1 htb rate 100gbit quantum 60000
tc class add dev eth0 parent 7074:1 classid 7074:2 htb rate 10000000bit ceil 10000000bit burst 12500 cburst 12500 quantum 60000
tc qdisc add dev eth0 parent 7074:2 bfifo limit 250000
tc qdisc add dev eth1 root handle 7074: htb default 0
tc class add dev eth1 parent 7074: classid 7074:1 htb rate 100gbit quantum 60000
tc class add dev eth1 parent 7074:1 classid 7074:2 htb rate 10000000bit ceil 10000000bit burst 12500 cburst 12500 quantum 60000
tc qdisc add dev eth1 parent 7074:2 bfifo limit 250000
perl - pytest-machine-hold /run/pytest-machine-hold 0.03:0.01:0:0:0 0.03:0.01:0:0:1 <<'END'
(hold.pl)
table inet pytest_machine
delete table inet pytest_machine
table netdev pytest_machine
delete table netdev pytest_machine
table netdev pytest_machine {
  chain leaving {
    type filter hook egress devices = { eth0, eth1 } priority 0; policy accept;
    ip daddr { 10.213.0.3, 10.214.0.3 } numgen random mod 1000000 < 100000 fwd to "lo"
    ip6 daddr { fd00::3 } numgen random mod 1000000 < 100000 fwd to "lo"
    oifname "eth0" ip daddr { 10.213.0.3, 10.214.0.3 } meta mark != 0x70740000 numgen random mod 1000000 < 200000 meta mark set 0x70740000 dup to "eth0"
    oifname "eth0" ip6 daddr { fd00::3 } meta mark != 0x70740000 numgen random mod 1000000 < 200000 meta mark set 0x70740000 dup to "eth0"
    oifname "eth1" ip daddr { 10.213.0.3, 10.214.0.3 } meta mark != 0x70740000 numgen random mod 1000000 < 200000 meta mark set 0x70740000 dup to "eth1"
    oifname "eth1" ip6 daddr { fd00::3 } meta mark != 0x70740000 numgen random mod 1000000 < 200000 meta mark set 0x70740000 dup to "eth1"
    ip daddr { 10.213.0.3, 10.214.0.3 } meta priority set 7074:2
    ip6 daddr { fd00::3 } meta priority set 7074:2
  }
}
table inet pytest_machine {
  chain held_0 {
  }
  chain held_1 {
  }
  chain came {
    type filter hook prerouting priority -349; policy accept;
    ip saddr { 10.213.0.3, 10.214.0.3 } icmp type echo-reply accept
    ip saddr { 10.213.0.3, 10.214.0.3 } goto held_0
    ip6 saddr { fd00::3 } icmpv6 type echo-reply accept
    ip6 saddr { fd00::3 } goto held_0
  }
  chain sent {
    type filter hook output priority -349; policy accept;
    meta mark 0x70740001 accept
    ip daddr { 10.213.0.3, 10.214.0.3 } icmp type echo-reply goto held_1
    ip6 daddr { fd00::3 } icmpv6 type echo-reply goto held_1
  }
}
END
