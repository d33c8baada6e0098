set -e
case $(tc qdisc show dev eth0 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth0 root ;;
esac
case $(tc qdisc show dev eth1 root) in "qdisc htb 7074: "*)
  tc qdisc delete dev eth1 root ;;
esac
perl - pytest-machine-hold /run/pytest-machine-hold 0.1:0.02:0:0:0 0.15:0.02:0:0:0 0.01:0:0.01:0.25:0 0.1:0.02:0:0:1 0.15:0.02:0:0:1 0.01:0:0.01:0.25:1 <<'END'
(hold.pl)
table inet pytest_machine
delete table inet pytest_machine
table netdev pytest_machine
delete table netdev pytest_machine
table inet pytest_machine {
  chain held_0 {
  }
  chain held_1 {
  }
  chain held_2 {
  }
  chain held_3 {
  }
  chain held_4 {
  }
  chain held_5 {
  }
  chain came {
    type filter hook prerouting priority -349; policy accept;
    ip saddr { 10.213.0.3 } icmp type echo-reply accept
    ip saddr { 10.213.0.3 } goto held_0
    ip saddr { 10.214.0.3 } icmp type echo-reply accept
    ip saddr { 10.214.0.3 } goto held_1
    ip6 saddr { fd00::3 } icmpv6 type echo-reply accept
    ip6 saddr { fd00::3 } goto held_1
    ip saddr { 10.213.0.4 } icmp type echo-reply accept
    ip saddr { 10.213.0.4 } goto held_2
  }
  chain sent {
    type filter hook output priority -349; policy accept;
    meta mark 0x70740001 accept
    ip daddr { 10.213.0.3 } icmp type echo-reply goto held_3
    ip daddr { 10.214.0.3 } icmp type echo-reply goto held_4
    ip6 daddr { fd00::3 } icmpv6 type echo-reply goto held_4
    ip daddr { 10.213.0.4 } icmp type echo-reply goto held_5
  }
}
END
