# Builds the programs from their source, and packs them to stdout's last line: the path of the artifact. $1: the repository,
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
git fetch -q --depth 1 "$1" "$2"
git checkout -q --force --detach FETCH_HEAD
echo "building $(git rev-parse --short HEAD)"
scripts/setup build run 2>&1
cargo build --locked --release -p ployzd -p ployzctl 2>&1
. scripts/lib.sh
rm -rf target/ployz-built
mkdir -p target/ployz-built/ployz
cp "$(nats_server_path)" "$(target_dir)/release/ployzd" "$(target_dir)/release/ployzctl" target/ployz-built/ployz
tar -cz -C target/ployz-built -f target/ployz-built/artifact.tar.gz ployz
echo "$source/target/ployz-built/artifact.tar.gz"
