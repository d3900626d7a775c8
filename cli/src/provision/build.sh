# Builds the programs from their source, and packs them. The last line says where the artifact is. $1: the repository,
# $2: a branch, a tag or a commit.
set -eu
PATH="$HOME/.cargo/bin:$PATH"
source=${XDG_CACHE_HOME:-$HOME/.cache}/ployz/source
if [ ! -d "$source/.git" ]; then
  rm -rf "$source"
  mkdir -p "$source"
  git init -q "$source"
fi
cd "$source"
echo "fetching $2"
git fetch -q --depth 1 -- "$1" "$2"
git checkout -q --force --detach FETCH_HEAD
echo "building $(git rev-parse --short HEAD)"
scripts/setup build run 2>&1
cargo build --locked --release -p ployzd -p ployzctl 2>&1
nats_server=$(bash -c '. scripts/lib.sh && nats_server_path')
built=${CARGO_TARGET_DIR:-$source/target}
rm -rf "$built/ployz-built"
mkdir -p "$built/ployz-built/ployz"
cp "$nats_server" "$built/release/ployzd" "$built/release/ployzctl" "$built/ployz-built/ployz"
tar -cz -C "$built/ployz-built" -f "$built/ployz-built/artifact.tar.gz" ployz
echo "$built/ployz-built/artifact.tar.gz"
