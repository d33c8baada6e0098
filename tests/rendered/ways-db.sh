ip -4 route flush proto 116 2>/dev/null
ip -6 route flush proto 116 2>/dev/null
ip -4 route add 10.1.1.0/24 via 10.1.3.3 proto 116 || exit
ip -6 route add fd00:1::/64 via fd00:3::3 proto 116 || exit
device() { set -- $(ip -o address show to "$1"); echo "$2"; }
pass() {
  tables=$1
  command -v $tables >/dev/null || return 0
  from=DOCKER-USER
  $tables -w -n -L $from >/dev/null 2>&1 || from=FORWARD
  $tables -w -N PYTEST-MACHINE 2>/dev/null || $tables -w -F PYTEST-MACHINE || return
  $tables -w -C $from -j PYTEST-MACHINE 2>/dev/null || $tables -w -I $from -j PYTEST-MACHINE || return
  for a in $all; do for b in $all; do
    case " $open " in
    *" $a "*) case " $open " in *" $b "*) verdict=$between ;; *) verdict=DROP ;; esac ;;
    *) verdict=DROP ;;
    esac
    [ $a = $b ] || [ -z "$verdict" ] || $tables -w -A PYTEST-MACHINE -i $a -o $b -j $verdict || return
  done; done
}
all="$(device "10.1.3.4") $(device "10.1.4.4")"
open="$(device "10.1.3.4")"
between=
pass iptables && pass ip6tables || exit
