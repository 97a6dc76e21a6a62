# make quick       run the notebooks on 8,192 images for three epochs, under build/quick
# make lab         open the first notebook (as root: LAB_ARGS="--allow-root --no-browser")
# make notebooks   run the notebooks in full and in place (-j2: two at a time)
# make study       train whichever of the study's runs are missing, and write the report
# make report      write the tables, the report and the pages' tables from the runs as they are
# make draw        write the networks' weights into docs/draw.html, the page to draw on
# make test        run all tests
# make bench       time an epoch beside an ordinary PyTorch loop's
# make data        fetch MNIST
# make lock        write requirements.lock: the versions of everything
# make clean       remove build/ and leftovers (FORCE=1: unfinished runs' checkpoints, too)
# Each sets up what it needs, in .venv or in VENV=PATH.

PYTHON ?= python3
VENV ?= .venv
ifneq ($(words $(VENV)),1)
$(error VENV is "$(VENV)"; expected a path without spaces)
endif
RUN := $(VENV)/bin/python -m
export PIP_USER := 0
TESTS := $(RUN) pytest --numprocesses logical --maxprocesses 4 --dist worksteal
PIP := $(RUN) pip install --disable-pip-version-check -c requirements.lock
NOTEBOOKS := $(addprefix MNIST_Classifier_,v1 v2 Final Original OneCycle)
QUICK := build/quick
PAPERMILL := $(RUN) papermill --log-output --no-progress-bar --start-timeout 600
EXECUTE := --ExecutePreprocessor

.PHONY: help quick lab notebooks $(NOTEBOOKS) data study report draw test bench lock clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

quick: data
	@rm -rf $(QUICK) && mkdir -p $(QUICK)
	@printf '%s\n' $(NOTEBOOKS) | xargs -P 2 -I {} $(PAPERMILL) {}.ipynb $(QUICK)/{}.ipynb \
	    -p EPOCHS 3 -p TRAIN_IMAGES 8192 -p OUT_DIR $(QUICK)
	@echo "$(QUICK) holds the notebooks as executed, their histories and weights. Next: make lab"

lab: $(VENV)/.ready
	@$(RUN) jupyter lab --LabApp.default_url=/lab/tree/MNIST_Classifier_v1.ipynb $(LAB_ARGS)

notebooks: $(NOTEBOOKS)

$(NOTEBOOKS): data
	@$(RUN) nbconvert --to notebook --execute --inplace $@.ipynb $(EXECUTE).record_timing=False \
	    $(EXECUTE).timeout=-1 $(EXECUTE).startup_timeout=600 $(EXECUTE).iopub_timeout=60
	@$(RUN) nbconvert --log-level WARN --coalesce-streams $@.ipynb

data: $(VENV)/.ready
	@$(VENV)/bin/python -c "from DataPipeline import load_mnist; load_mnist()"

study: data
	@$(RUN) study run
	@$(RUN) study report

report: data
	@$(RUN) study report

draw: $(VENV)/.ready
	@$(RUN) helpers.sketchpad

test: data
	@$(TESTS)

bench: data
	@$(VENV)/bin/python benchmarks/epoch_time.py --json benchmarks/epoch_time.json

lock:
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@build/lock/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
	    --custom-compile-command "make lock" --output-file requirements.lock requirements.txt

clean:
	rm -rf build
	find . -name '.*.tmp' -not -path './.git/*' -delete
	@[ -z "$(FORCE)" ] || find results -name '*.pt' -delete
	@find results -name '*.pt' | sed '1i Checkpoints of unfinished runs stay; make clean FORCE=1 deletes:'

$(VENV)/.ready: requirements.txt requirements.lock
	@case "$$($(PYTHON) --version 2>&1)" in \
	    "Python 3.11."* | "Python 3.12."* | "Python 3.13."*) ;; \
	    *) echo "This needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is none of them: name one," \
	           "as in make PYTHON=python3.12"; exit 1 ;; \
	esac
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	@touch $@
