# make quick       run the notebooks on 8,192 images for three epochs, under build/quick
# make lab         open the first notebook (as root: LAB_ARGS="--allow-root --no-browser")
# make notebooks   run the notebooks in full and in place (-j2: two at a time)
# make study       train whichever of the study's runs are missing, and write the report
# make report      write the report on the study's runs as they are
# make draw        draw a digit on a page in the browser (sets up Gradio, in a .venv-draw of its own)
# make check       run the quick tests
# make test        run all tests but torture's
# make torture     inflict hundreds of faults on checkpoints, data and training
# make bench       time an epoch beside an ordinary PyTorch loop's
# make data        fetch MNIST
# make lock        write requirements.lock and requirements-draw.lock: the versions of everything
# make clean       remove build/ and what killed writers left; asks before it removes checkpoints
#
# Each sets up what it needs, in .venv or in VENV=PATH; draw in .venv-draw or in DRAW_VENV=PATH.

PYTHON ?= python3
VENV ?= .venv
DRAW_VENV ?= .venv-draw
ifneq ($(words $(VENV)),1)
$(error VENV is "$(VENV)"; expected a path without spaces)
endif
ifneq ($(words $(DRAW_VENV)),1)
$(error DRAW_VENV is "$(DRAW_VENV)"; expected a path without spaces)
endif
RUN := $(VENV)/bin/python -m
TESTS := $(RUN) pytest --numprocesses logical --maxprocesses 4 --dist worksteal
READY := $(VENV)/.ready
NOTEBOOKS := $(addprefix MNIST_Classifier_,v1 v2 Final OneCycle AsRun)
QUICK := build/quick
COMPILE := build/lock/bin/python -m uv pip compile --quiet --universal --python-version 3.11 \
    --no-annotate --custom-compile-command "make lock" --output-file

# What the quick run's histories hold.
define SUMMARY
import json, pathlib
print(f"\n{'run':12} {'variant':10} epochs  final test accuracy")
for path in sorted(pathlib.Path("$(QUICK)").glob("*.json")):
    run = json.loads(path.read_text())
    accuracy = run["epochs"][-1]["test_accuracy"]
    print(f"{path.stem:12} {run['variant']:10} {len(run['epochs']):6}  {accuracy:.2f} %")
endef
export SUMMARY

.PHONY: help quick lab notebooks $(NOTEBOOKS) data study report draw check test torture bench lock clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

quick: data
	@rm -rf $(QUICK)
	@for name in $(NOTEBOOKS); do \
	    $(RUN) helpers.execute $$name.ipynb --to $(QUICK)/$$name.ipynb \
	        EPOCHS=3 TRAIN_IMAGES=8192 OUT_DIR=$(QUICK) || exit 1; \
	done
	@$(VENV)/bin/python -c "$$SUMMARY"
	@echo
	@echo "$(QUICK) holds the notebooks as executed (.ipynb), what each epoch measured (.json)" \
	    "and the networks' weights (.safetensors)."

lab: $(READY)
	@$(RUN) jupyter lab --LabApp.default_url=/lab/tree/MNIST_Classifier_v1.ipynb $(LAB_ARGS)

notebooks: $(NOTEBOOKS)

$(NOTEBOOKS): data
	@$(RUN) helpers.execute $@.ipynb

data: $(READY)
	@$(VENV)/bin/python -c "from DataPipeline import load_mnist; load_mnist()"

study: $(READY)
	@$(RUN) study run
	@$(RUN) study run --setting "as run"
	@$(RUN) study report

report: $(READY)
	@$(RUN) study report

check: data
	@$(TESTS) -m "not slow and not torture"

draw: $(DRAW_VENV)/.ready
	@$(DRAW_VENV)/bin/python app.py

test: data
	@$(TESTS) -m "not torture"

torture: $(READY)
	@$(RUN) pytest -m torture

bench: $(READY)
	@$(VENV)/bin/python benchmarks/epoch_time.py --json benchmarks/epoch_time.json

lock:
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(COMPILE) requirements.lock requirements.txt
	@cp requirements.lock requirements-draw.lock  # the same versions, where Gradio takes them
	@$(COMPILE) requirements-draw.lock requirements.txt requirements-draw.txt

clean:
	rm -rf build
	rm -f .*.tmp docs/.*.tmp data/MNIST/raw/.*.tmp
	find results -name '.*.tmp' -delete
	@count=$$(find results -name '*.pt' | wc -l); \
	if [ $$count -gt 0 ]; then \
	    if [ -n "$(FORCE)" ]; then answer=y; \
	    elif [ -t 0 ]; then \
	        printf "Delete the checkpoints of %d unfinished runs under results/, too? [y/N] " $$count; \
	        read answer; \
	    fi; \
	    case "$$answer" in \
	        [yY]*) find results -name '*.pt' -delete -or -name '*.lock' -delete ;; \
	        *) echo "Kept: the checkpoints of" $$count "unfinished runs under results/. What began" \
	               "them resumes them; make clean FORCE=1 deletes them." ;; \
	    esac; \
	fi

$(READY): requirements.txt requirements.lock
$(DRAW_VENV)/.ready: requirements.txt requirements-draw.txt requirements-draw.lock
%/.ready:
	@case "$$($(PYTHON) --version 2>&1)" in \
	    "Python 3.11."* | "Python 3.12."* | "Python 3.13."*) ;; \
	    *) echo "This needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is none of them: name one," \
	           "as in make PYTHON=python3.12"; exit 1 ;; \
	esac
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check \
	    $(patsubst %.txt,-r %.txt,$(filter %.txt,$^)) -c $(filter %.lock,$^)
	@touch $@
