#!/bin/sh
# Open the workspace in which stages run: a git clone on a volume, created once and fast-forwarded at each start.
# Releases are pushed to its `origin`: HEADRACE_GIT_REMOTE, by default a bare repository on a volume, fed from the project's
# checkout, HEADRACE_REPOSITORY. Killed at any line, the next start completes it. HEADRACE_CLONE_FILTER makes a partial clone.
set -eu

workspace="${HEADRACE_WORKSPACE:?set HEADRACE_WORKSPACE to the folder of the clone}"
remote="${HEADRACE_GIT_REMOTE:?set HEADRACE_GIT_REMOTE to the git address that releases are pushed to}"
repository="${HEADRACE_REPOSITORY:-/repository}"
branch="${HEADRACE_CODE_BRANCH:-main}"

case "$remote" in
/*) # a repository of our own: fast-forward it to the checkout's HEAD
    git -C "$repository" rev-parse --verify --quiet HEAD >/dev/null || {
        echo "$repository: expected a git checkout with a commit, found none; mount one there, then start again" >&2
        exit 1
    }
    [ -e "$remote/HEAD" ] || git init --quiet --bare --initial-branch "$branch" "$remote"
    git -C "$remote" fetch --quiet --update-shallow "$repository" +HEAD:refs/headrace/checkout
    theirs=refs/headrace/checkout ours="refs/heads/$branch"
    if ! git -C "$remote" rev-parse --verify --quiet "$ours" >/dev/null || git -C "$remote" merge-base --is-ancestor "$ours" "$theirs"; then
        git -C "$remote" update-ref "$ours" "$theirs"
    elif ! git -C "$remote" merge-base --is-ancestor "$theirs" "$ours"; then
        echo "$remote: unchanged, because it and $repository have diverged; merge them, or set HEADRACE_GIT_REMOTE"
    fi
    ;;
esac

if [ ! -e "$workspace/.git" ]; then
    rm -rf "$workspace/.clone"
    git clone --quiet --no-checkout ${HEADRACE_CLONE_FILTER:+--filter="$HEADRACE_CLONE_FILTER"} --branch "$branch" "$remote" "$workspace/.clone"
    mv "$workspace/.clone/.git" "$workspace/.git"
    rmdir "$workspace/.clone"
fi
# Git writes the index last: without one, the files are incomplete.
[ -e "$workspace/.git/index" ] || git -C "$workspace" reset --quiet --hard

git -C "$workspace" pull --quiet --ff-only --tags origin "$branch" ||
    echo "$workspace: unchanged, because its origin is not a fast-forward; see git status"
echo "$workspace: at $(git -C "$workspace" rev-parse --short HEAD), releases go to $remote"
