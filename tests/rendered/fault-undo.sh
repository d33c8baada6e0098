nft delete table inet pytest_machine 2>/dev/null
nft delete table netdev pytest_machine 2>/dev/null
for path in /sys/class/net/*; do
  case $(tc qdisc show dev "${path##*/}" root 2>/dev/null) in
  "qdisc htb 7074: "*) tc qdisc delete dev "${path##*/}" root ;;
  esac
done
if [ -e /run/pytest-machine-hold ]; then
  pid=$(cat /run/pytest-machine-hold) i=0
  while grep -qs pytest-machine-hold "/proc/$pid/cmdline"; do
    if [ $i -lt 100 ]; then kill -TERM "$pid"; else kill -KILL "$pid"; fi 2>/dev/null || true
    i=$((i + 1)); sleep 0.01
  done
  rm -f /run/pytest-machine-hold
fi
true
