# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are read by job.sh
# What differs from cluster to cluster. The one file to adapt: every job script reads it, in the batch shell on
# the job's first node, and what it exports reaches all ranks. Keep one a cluster if you use several, and name
# it with `fedreid-mpi submit --env-script`, or in FEDREID_ENV; the job scripts are looked for beside it.

# --- The programs: uncomment one way ------------------------------------------------------------------------

# A virtual environment, on the site's Python and MPI:
# module purge
# module load python/3.11 openmpi
# source "$HOME/venvs/fedreid/bin/activate"

# conda, with its own Open MPI (environment.yml):
# source "$HOME/miniforge3/etc/profile.d/conda.sh"
# conda activate fedreid-mpi

# Modules alone, where the site offers PyTorch and mpi4py itself:
# module purge
# module load python pytorch mpi4py
# export PATH="$HOME/.local/bin:$PATH"

# The MPI library that mpi4py loads, if it is not the one that the site's mpirun belongs to:
# export MPI4PY_LIBMPI=/path/of/the/module/lib/libmpi.so

# --- Launching ----------------------------------------------------------------------------------------------

# mpirun or srun; `fedreid-mpi submit --launcher` overrides it.
launcher=mpirun

# One rank per node in turn, so that the server is on the first node and clients are spread evenly. SLURM
# keeps the job to its cores; several ranks bound to one core would be slower than unbound ones.
mpirun=(mpirun --map-by node --bind-to none)      # Open MPI
# mpirun=(mpiexec -rr -bind-to none)              # MPICH, Intel MPI

srun=(srun --mpi=pmix --distribution=cyclic)      # `srun --mpi=list` lists what the site has

# --- Each rank ----------------------------------------------------------------------------------------------

# Keeps libraries from starting one thread per core in every rank; a rank trains with compute.threads.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# Archives are copied here once per node before training; empty: read where they are. In single quotes, as each
# node fills in the variable. Choose a folder that SLURM clears when the job ends.
# shellcheck disable=SC2016
stage=${SLURM_TMPDIR:+'$SLURM_TMPDIR'}
