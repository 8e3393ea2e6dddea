#!/usr/bin/env bash
# Prints the folder with the jars of Apache RocketMQ, which it gets from Maven Central when they are not there yet. Needs Java 17 or later and Maven.
#
# The folder is outside the checkout, so that a clean checkout does not load them again.
set -euo pipefail

version=${ROCKETMQ_VERSION:-5.5.0}
home=${XDG_CACHE_HOME:-$HOME/.cache}/millrace/rocketmq-$version

if [[ ! -e $home/complete ]]; then
  for program in java mvn; do
    command -v "$program" >/dev/null || { echo "hack/rocketmq.sh: install $program first (Debian: openjdk-17-jre-headless, maven)" >&2; exit 1; }
  done
  echo "hack/rocketmq.sh: getting Apache RocketMQ $version from Maven Central" >&2
  mkdir -p "$home"
  {
    cat <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.millrace</groupId>
  <artifactId>rocketmq-for-tests</artifactId>
  <version>1</version>
  <dependencies>
POM
    for artifact in rocketmq-namesrv rocketmq-proxy rocketmq-tools; do
      echo "    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
    done
    cat <<POM
  </dependencies>
</project>
POM
  } >"$home/pom.xml"
  mvn --quiet --batch-mode --file "$home/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/lib" >&2
  touch "$home/complete"
fi
echo "$home/lib"
