nft delete table inet pytest_machine 2>/dev/null
nft delete table netdev pytest_machine 2>/dev/null
for path in /sys/class/net/*; do
  case $(tc qdisc show dev "${path##*/}" root 2>/dev/null) in
  "qdisc htb 7074: "*) tc qdisc delete dev "${path##*/}" root ;;
  esac
done
true
