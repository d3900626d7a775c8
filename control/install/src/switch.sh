# Has another version run, and goes back unless that is confirmed in time. It is started as a unit of its own, so that
# neither the version that goes nor the one that comes has to live for it.
#
# DIRECTORY/units has the new version's units. There are no braces around names of variables here: systemd would
# put its own values there.
#
#   switch.sh DIRECTORY NEW FORMER SECONDS ROLLBACK SYSTEMD
set -u
cd "$1" || exit 1
new=$2 former=$3 seconds=$4 rollback=$5 systemd=$6
# So often a version may end by itself before it counts as broken.
restarts_max=3

say() { echo "$1" >switch.new && mv switch.new switch; }

link() { ln -sfn "$1" "$2.new" && mv -T "$2.new" "$2"; }

# systemd reads the one or the other, whenever it does.
put() { install -m 644 "$1" "$2.new" && sync "$2.new" && mv -T "$2.new" "$2"; }

# Those that are other than the former version's, whose own are kept.
new_units() {
  rm -rf units.former && mkdir units.former
  exchanged=
  for file in units/*; do
    unit=$(basename "$file")
    [ "$(cat "$file")" != "$(cat "$systemd/$unit" 2>/dev/null)" ] || continue
    [ ! -e "$systemd/$unit" ] || cp "$systemd/$unit" units.former/ || return 1
    exchanged="$exchanged $unit"
    put "$file" "$systemd/$unit" || return 1
  done
  reload
}

former_units() {
  for unit in $exchanged; do
    if [ -e "units.former/$unit" ]; then
      put "units.former/$unit" "$systemd/$unit"
    else
      rm -f "$systemd/$unit"
    fi
  done
  reload
}

reload() { [ -z "$exchanged" ] || systemctl daemon-reload; }

run() {
  link "versions/$1" current
  systemctl restart --no-block ployzd.service
}

restarts() { systemctl show --property NRestarts --value ployzd.service; }

rm -f verdict
say watched
# Whoever asked for this hears that it was begun.
sleep 0.2
if ! new_units; then
  former_units
  say reverted && exit 1
fi
link "versions/$former" previous
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
former_units
run "$former"
say reverted
