ip -4 route flush proto 116 2>/dev/null
ip -6 route flush proto 116 2>/dev/null
ip -4 route add 10.1.3.0/24 via 10.1.1.3 proto 116 || exit
ip -6 route add fd00:3::/64 via fd00:1::3 proto 116 || exit
