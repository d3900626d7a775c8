# Has another version run, and goes back unless that is confirmed in time. It is started as a unit of its own, so that
# neither the version that goes nor the one that comes has to live for it.
#
#   switch.sh DIRECTORY NEW FORMER SECONDS ROLLBACK
set -u
cd "$1" || exit 1
new=$2 former=$3 seconds=$4 rollback=$5
# So often a version may end by itself before it counts as broken.
restarts_max=3

say() { echo "$1" >switch.new && mv switch.new switch; }

link() { ln -sfn "$1" "$2.new" && mv -T "$2.new" "$2"; }

run() {
  link "versions/$1" current
  systemctl restart --no-block ployzd.service
}

restarts() { systemctl show --property NRestarts --value ployzd.service; }

rm -f verdict
say watched
link "versions/$former" previous
# Whoever asked for this hears that it was begun.
sleep 0.2
run "$new"
while [ "$seconds" -gt 0 ]; do
  case $(cat verdict 2>/dev/null) in
    confirm) say confirmed && exit 0 ;;
    revert) break ;;
  esac
  [ "$(restarts)" -lt "$restarts_max" ] || break
  sleep 1
  seconds=$((seconds - 1))
done
[ "$rollback" = yes ] || { say kept && exit 1; }
run "$former"
say reverted
