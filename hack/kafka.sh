#!/usr/bin/env bash
# Prints the folder with the jars of Apache Kafka, which it gets from Maven Central when they are not there yet. Needs Java 17 or later and Maven.
#
# The folder is outside the checkout, so that a clean checkout does not load them again.
set -euo pipefail

version=${KAFKA_VERSION:-4.4.0}
home=${XDG_CACHE_HOME:-$HOME/.cache}/millrace/kafka-$version

if [[ ! -e $home/complete ]]; then
  for program in java mvn; do
    command -v "$program" >/dev/null || { echo "hack/kafka.sh: install $program first (Debian: openjdk-17-jre-headless, maven)" >&2; exit 1; }
  done
  echo "hack/kafka.sh: getting Apache Kafka $version from Maven Central" >&2
  mkdir -p "$home"
  cat >"$home/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.millrace</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
  mvn --quiet --batch-mode --file "$home/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/lib" >&2
  touch "$home/complete"
fi
echo "$home/lib"
