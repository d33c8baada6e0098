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
    ip daddr { 10.213.0.3, 10.214.0.3 } fwd to "lo"
    ip6 daddr { fd00::3 } fwd to "lo"
  }
}
table inet pytest_machine {
  chain arriving {
    type filter hook prerouting priority -350; policy accept;
    ip saddr { 10.213.0.3, 10.214.0.3 } drop
    ip6 saddr { fd00::3 } drop
  }
}
END
if [ -e /run/pytest-machine-hold ]; then
  pid=$(cat /run/pytest-machine-hold) i=0
  while grep -qs pytest-machine-hold "/proc/$pid/cmdline"; do
    if [ $i -lt 100 ]; then kill -TERM "$pid"; else kill -KILL "$pid"; fi 2>/dev/null || true
    i=$((i + 1)); sleep 0.01
  done
  rm -f /run/pytest-machine-hold
fi
