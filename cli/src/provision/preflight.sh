# What a host is like, one fact a line. Changes nothing. $1: UDP ports, separated by spaces.
fact() { printf '%s=%s\n' "$1" "$2"; }
fact arch "$(uname -m)"
fact kernel "$(uname -r)"
fact user "$(id -un)"
fact now "$(date +%s)"
if [ "$(id -u)" = 0 ]; then
  fact root user
  root=
elif ! command -v sudo >/dev/null; then
  fact root 'sudo is not installed'
  exit 0
elif why=$(sudo -n true 2>&1); then
  fact root sudo
  root='sudo -n'
else
  fact root "$(printf %s "$why" | tail -n 1)"
  exit 0
fi
[ -d /run/systemd/system ] && fact systemd yes
$root sh -c '[ -c /dev/net/tun ] || modprobe tun' 2>/dev/null
[ -c /dev/net/tun ] && fact tun yes
fact io_uring_disabled "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null)"
for port in $1; do
  hex=$(printf ':%04X' "$port")
  if awk '{ print $2 }' /proc/net/udp /proc/net/udp6 2>/dev/null | grep -q "$hex\$"; then
    fact taken "$port"
  fi
done
directory=/opt
[ -d $directory ] || directory=/
fact free_kib "$(df -Pk $directory | awk 'NR == 2 { print $4 }')"
PATH="$HOME/.cargo/bin:$PATH"
for tool in tar gzip timeout git cargo bash; do
  command -v $tool >/dev/null && fact has_$tool yes
done
if [ -S /run/docker.sock ] || [ -S /run/podman/podman.sock ]; then fact has_docker yes; fi
if [ -e /opt/ployz/current/ployzctl ]; then
  fact installed "$(basename "$(readlink /opt/ployz/current)")"
  status=$($root /opt/ployz/current/ployzctl --context local --timeout 10s --json status | tr -d '\n')
  fact status "$status"
elif pgrep -x ployzd >/dev/null; then
  fact foreign yes
fi
fact end yes
