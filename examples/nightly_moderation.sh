#!/bin/sh
# Judge yesterday's logs every night, and send a mail if the scores have shifted. In a crontab:
#   15 3 * * * /srv/guard/nightly_moderation.sh /srv/guard/logs/$(date -d yesterday +\%F).jsonl.gz
# A run that was killed is continued by the same command. MODEL, REFERENCE (an earlier output) and MAIL can be set.
set -u
log=$1
name=$(basename "$log" .jsonl.gz)
python -m guardreasoner moderate "$log" \
  --model "${MODEL:-checkpoints/hsdpo}" \
  --out "moderated/$name.jsonl" --to_review "moderated/$name.queue.jsonl" --quarantine "moderated/$name.faulty" \
  ${REFERENCE:+--reference "$REFERENCE" --drift_threshold 0.25}
code=$?
case $code in
  0) ;;
  3) echo "the scores of $name have shifted" | ${MAIL:-mail -s "guard: drift" root} ;;
  *) echo "moderate ended with $code on $name" | ${MAIL:-mail -s "guard: failed" root} ;;
esac
exit $code
