echo 1 >/proc/sys/net/ipv4/ip_forward || exit
[ ! -e /proc/sys/net/ipv6/conf/all/forwarding ] || echo 1 >/proc/sys/net/ipv6/conf/all/forwarding || exit
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
all="$(device "10.1.1.3") $(device "10.1.3.3") $(device "10.1.4.3")"
open="$(device "10.1.1.3") $(device "10.1.3.3")"
between=ACCEPT
pass iptables && pass ip6tables || exit
